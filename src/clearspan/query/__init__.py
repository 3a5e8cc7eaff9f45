"""The filter language: fields, operators, syntax tree, SQL compiler, plain-Python oracle, words, pages."""
