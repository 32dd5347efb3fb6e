"""The error of settings that are missing or malformed."""


class SettingError(ValueError):
    """Settings are missing or malformed; each problem names its variable, what was given and what to write.

    Attributes:
        problems: one sentence or more for each wrong setting; never contains a secret.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        if len(problems) == 1:
            super().__init__(problems[0])
        else:
            super().__init__("\n- ".join((f"{len(problems)} settings are wrong:", *problems)))
