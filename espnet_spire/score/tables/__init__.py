"""The paper's tables with our figures beside its own, and the page that shows them."""
