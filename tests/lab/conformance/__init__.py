"""The cases of the OCI distribution specification, asked in several ways whose answers are compared."""
