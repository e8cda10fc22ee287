"""Generation: batched decoding of prompts, the tasks built on it, the self-cascade."""
