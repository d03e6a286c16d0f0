"""The command line: the parser, the console, and one module per command, of the command's name."""
