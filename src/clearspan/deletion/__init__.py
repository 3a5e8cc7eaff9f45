"""The one road by which trace data leaves: request → guard → plan → hide → purge → verify. See README.md here."""
