"""Tasks: what is trained and measured. A task of your own is added by `register_task`."""

from ddfnet.tasks import classification, depth, detection
from ddfnet.tasks.registry import TASKS, Evaluation, TaskSpec, Training, register_task

__all__ = ["TASKS", "Evaluation", "TaskSpec", "Training", "register_task"]

for _spec in (depth.SPEC, classification.SPEC, detection.SPEC):
    register_task(_spec)
