"""What is wrong with credentials, endpoints and configuration, for users."""

NO_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run aws configure"
)


class AwsTrouble(Exception):
    """What is wrong, and a remedy; `passing` if it may be over soon without one."""

    def __init__(self, sentence: str, remedy: str = "", passing: bool = False) -> None:
        super().__init__(f"{sentence}: {remedy}" if remedy else sentence)
        self.sentence, self.remedy, self.passing = sentence, remedy, passing
