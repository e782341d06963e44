"""One module for each `python -m medfusion COMMAND`: add_arguments(parser) and run(arguments) -> exit code."""
