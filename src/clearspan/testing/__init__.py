"""Public test tools: a clock and ids that tests own, builders of model values, a catalog in memory."""
