"""Training parts that all tasks share: callbacks, samplers, schedules, FSDP."""
