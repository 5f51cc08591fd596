"""As much of the program `aws` as docs/aws.md uses; names and arguments are checked by botocore.

python aws_cli.py SERVICE OPERATION --argument VALUE ...
"""

import sys
from pathlib import Path

import boto3
import jmespath
from botocore import xform_name


def main(words: list[str]) -> None:
    service, operation, *rest = words
    client = boto3.client(service)
    if service == "s3":
        print(S3[operation](client, *rest))
        return
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    query, _ = given.pop("--query", "@"), given.pop("--output", None)
    name = client.meta.method_to_api_mapping[operation.replace("-", "_")]
    members = client.meta.service_model.operation_model(name).input_shape.members
    known = {f"--{xform_name(member, '-')}": member for member in members}
    request: dict[str, object] = {}
    if "--port" in given:  # the shorthand for a rule of a security group
        port = int(given.pop("--port"))
        request = {"IpProtocol": given.pop("--protocol"), "FromPort": port, "ToPort": port}
        request["CidrIp"] = given.pop("--cidr")
    request |= {known[option]: _value(text) for option, text in given.items()}
    answer = getattr(client, operation.replace("-", "_"))(**request)
    print(jmespath.search(query, answer))


def _value(text: str) -> str:
    return Path(text.removeprefix("file://")).read_text() if text.startswith("file://") else text


def _bucket(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix


def mb(client, url):
    return client.create_bucket(Bucket=_bucket(url)[0])


def cp(client, folder, url, recursive):
    assert recursive == "--recursive"
    bucket, prefix = _bucket(url)
    for path in Path(folder).iterdir():
        client.put_object(Bucket=bucket, Key=prefix + path.name, Body=path.read_bytes())
    return f"copied {folder}"


def rb(client, url, force):
    assert force == "--force"
    bucket, _ = _bucket(url)
    for one in client.list_objects_v2(Bucket=bucket).get("Contents", []):
        client.delete_object(Bucket=bucket, Key=one["Key"])
    return client.delete_bucket(Bucket=bucket)


S3 = {"mb": mb, "cp": cp, "rb": rb}

if __name__ == "__main__":
    main(sys.argv[1:])
