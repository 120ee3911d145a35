"""The round loop: who runs in a step, the step itself, and the drafts of the next one."""
