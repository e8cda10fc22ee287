"""What every part needs and no part owns: errors, command lines, files, data directories."""
