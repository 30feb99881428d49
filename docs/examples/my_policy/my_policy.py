from controller.policies import NOT_PULLED, UNKNOWN, Context, Explanation, Feedback, Policy


class MyPolicy(Policy):
    """A step less after ``patience`` control slots in a row that kept the QoS, a step more after a miss."""

    name = "my_policy"
    per_state = True  # one for each state of a hop; False: one for each hop
    option_names = ("patience",)

    def __init__(self, actions, *, patience=5):
        super().__init__(actions)  # checks them: ascending PRBs or MHz
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"policy my_policy: option patience {patience!r} is not a whole number above 0")
        self._patience, self._step, self._kept, self._why = patience, len(self.actions) - 1, 0, NOT_PULLED

    def pull(self, context: Context = UNKNOWN) -> int:
        self._why = Explanation(None, "exploit" if self._kept else "explore")
        return self.actions[self._step]

    def update(self, action: int, feedback: Feedback) -> None:
        self._index_of(action, feedback)  # refuses what is no action of its own, and what is no QoS bit
        self._kept = (self._kept + 1) % self._patience if feedback.met else 0
        if not self._kept:
            step = self._step - 1 if feedback.met else self._step + 1
            self._step = min(max(step, 0), len(self.actions) - 1)

    def explain(self) -> Explanation:
        return self._why

    def options(self):  # what makes an equal policy
        return {"patience": self._patience}

    def _learned(self):  # what a checkpoint keeps, as plain JSON
        return {"step": self._step, "kept": self._kept}

    def _load(self, state):  # what it begins with again
        self._step, self._kept = state["step"], state["kept"]
