"""Parts of training that all tasks share: callbacks, samplers, schedules and FSDP."""
