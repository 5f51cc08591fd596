"""The parts of AWS's APIs that mu uses, as types: boto3 has none of its own."""

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, Protocol, TypedDict, overload

# ------------------------------------------------ Lambda


class Storage(TypedDict):
    Size: int


class VpcConfig(TypedDict, total=False):
    VpcId: str
    Ipv6AllowedForDualStack: bool


class ManagedInstances(TypedDict, total=False):
    CapacityProviderArn: str
    PerExecutionEnvironmentMaxConcurrency: int


class CapacityProviderConfig(TypedDict, total=False):
    LambdaManagedInstancesCapacityProviderConfig: ManagedInstances


class FunctionConfiguration(TypedDict, total=False):
    """Lambda's description of a function."""

    Description: str
    Role: str
    Runtime: str
    Handler: str
    MemorySize: int
    Timeout: int
    EphemeralStorage: Storage
    Architectures: list[str]
    CodeSha256: str
    PackageType: str
    VpcConfig: VpcConfig
    CapacityProviderConfig: CapacityProviderConfig
    State: str
    StateReason: str
    LastUpdateStatus: str
    LastUpdateStatusReason: str


class CodeSource(TypedDict, total=False):
    """Where the zip of a function is: in the request, or in S3."""

    ZipFile: bytes
    S3Bucket: str
    S3Key: str


class EventInvokeConfig(TypedDict, total=False):
    MaximumRetryAttempts: int
    MaximumEventAgeInSeconds: int


class InvokeAnswer(TypedDict):
    """The answer to a synchronous invocation."""

    FunctionError: NotRequired[str]
    Payload: "Body"


class AccountLimit(TypedDict):
    ConcurrentExecutions: int
    UnreservedConcurrentExecutions: int


class AccountSettings(TypedDict):
    AccountLimit: AccountLimit


class Concurrency(TypedDict, total=False):
    ReservedConcurrentExecutions: int


class LambdaApi(Protocol):
    """A client of Lambda. Every call may raise botocore's exceptions."""

    def get_function_configuration(self, *, FunctionName: str) -> FunctionConfiguration: ...
    def get_function_concurrency(self, *, FunctionName: str) -> Concurrency: ...
    def get_function_event_invoke_config(self, *, FunctionName: str) -> EventInvokeConfig: ...
    def get_account_settings(self) -> AccountSettings: ...
    def create_function(self, **request: object) -> object: ...
    def update_function_code(self, **request: object) -> object: ...
    def update_function_configuration(self, **request: object) -> object: ...
    def put_function_event_invoke_config(self, **request: object) -> object: ...
    def update_function_event_invoke_config(self, **request: object) -> object: ...
    def delete_function(self, *, FunctionName: str) -> object: ...
    def invoke(
        self, *, FunctionName: str, InvocationType: str, Payload: bytes = b"{}"
    ) -> InvokeAnswer: ...


# ------------------------------------------------ S3


class BucketHead(TypedDict, total=False):
    BucketRegion: str


class Body(Protocol):
    def read(self) -> bytes: ...


class GetObjectOutput(TypedDict):
    Body: Body


class S3Api(Protocol):
    """A client of S3."""

    def head_bucket(self, *, Bucket: str) -> BucketHead: ...
    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> object: ...
    def get_object(self, *, Bucket: str, Key: str) -> GetObjectOutput: ...
    def delete_object(self, *, Bucket: str, Key: str) -> object: ...
    def upload_file(self, path: str, bucket: str, key: str) -> object: ...


# ------------------------------------------------ STS and IAM


class ResponseMetadata(TypedDict, total=False):
    HTTPHeaders: Mapping[str, str]


class CallerIdentity(TypedDict):
    Arn: str
    Account: str
    ResponseMetadata: ResponseMetadata


class StsApi(Protocol):
    """A client of the Security Token Service."""

    def get_caller_identity(self) -> CallerIdentity: ...


class TrustStatement(TypedDict, total=False):
    Effect: str
    Principal: Mapping[str, str | list[str]]


class TrustPolicy(TypedDict):
    Statement: NotRequired[TrustStatement | list[TrustStatement]]


class Role(TypedDict):
    AssumeRolePolicyDocument: TrustPolicy


class RoleAnswer(TypedDict):
    Role: Role


class EvaluationResult(TypedDict):
    EvalActionName: str
    EvalDecision: str


class Simulation(TypedDict):
    EvaluationResults: list[EvaluationResult]


class IamApi(Protocol):
    """A client of IAM."""

    def get_role(self, *, RoleName: str) -> RoleAnswer: ...
    def simulate_principal_policy(
        self, *, PolicySourceArn: str, ActionNames: Sequence[str], ResourceArns: Sequence[str]
    ) -> Simulation: ...


# ------------------------------------------------ clients


class Clients(Protocol):
    """Makes clients, by service and region."""

    @overload
    def client(self, service: Literal["lambda"], region: str) -> LambdaApi: ...
    @overload
    def client(self, service: Literal["s3"], region: str) -> S3Api: ...
    @overload
    def client(self, service: Literal["sts"], region: str) -> StsApi: ...
    @overload
    def client(self, service: Literal["iam"], region: str) -> IamApi: ...
