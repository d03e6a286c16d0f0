"""What the commands do: call the steps, print the answer, and return it for `--json`."""
