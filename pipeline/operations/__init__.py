"""One operation a file; every module here is imported and its class registered."""
