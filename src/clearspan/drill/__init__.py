"""The drill: plant known needles through the real ingest, delete them, look for them, write down what was seen."""
