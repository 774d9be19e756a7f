"""Judging policies and simulators; for now, pictures of rollouts (`plots`, extra ``[report]``)."""
