"""The mathematics of sampling: noise schedules, counter-based noise, and samplers. Knows neither Ray nor storage."""
