#!/usr/bin/env python3
"""A moto server that asks who calls and holds them to the policy of docs/operations.md, word for word.

    scripts/guarded_s3.py serve PORT              a moto server. It does not check signatures: moto's own check fails at a slash in a query,
                                                  and the bucket in memory of our tests checks them all
    scripts/guarded_s3.py prepare ENDPOINT DIR    buckets, one of which keeps versions; a user with the policy; from then on, access
                                                  rules. Writes DIR/credentials (the user's) and DIR/operator.json
    scripts/guarded_s3.py rotate ENDPOINT DIR     takes the user's key away
    scripts/guarded_s3.py renew ENDPOINT DIR      gives the user another, in DIR/credentials

Needs boto3, which comes with moto.
"""
import json
import pathlib
import re
import sys
import urllib.request

import boto3
from botocore.config import Config

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUCKETS = {"guarded": False, "guarded-versions": True, "guarded-keys": False}
VAULT, OPERATOR = "vault", "operator"


def client(service: str, endpoint: str, key: dict):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        config=Config(s3={"addressing_style": "path"}),
    )


def documented(bucket: str) -> str:
    text = (ROOT / "docs/operations.md").read_text()
    return re.search(r"```json\n(\{\s+\"Version\".*?)```", text, re.S).group(1).replace("BUCKET", bucket)


def user(iam, name: str, policies: list[str]) -> dict:
    iam.create_user(UserName=name)
    for number, policy in enumerate(policies):
        made = iam.create_policy(PolicyName=f"{name}-{number}", PolicyDocument=policy)
        iam.attach_user_policy(UserName=name, PolicyArn=made["Policy"]["Arn"])
    return iam.create_access_key(UserName=name)["AccessKey"]


def write(place: pathlib.Path, key: dict) -> None:
    text = f"[default]\naws_access_key_id = {key['AccessKeyId']}\naws_secret_access_key = {key['SecretAccessKey']}\n"
    (place / "credentials").write_text(text)


def prepare(endpoint: str, place: pathlib.Path) -> None:
    anybody = {"AccessKeyId": "any", "SecretAccessKey": "any"}
    s3, iam = client("s3", endpoint, anybody), client("iam", endpoint, anybody)
    for bucket, versions in BUCKETS.items():
        s3.create_bucket(Bucket=bucket)
        if versions:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    write(place, user(iam, VAULT, [documented(bucket) for bucket in BUCKETS]))
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    operator = user(iam, OPERATOR, [json.dumps({"Version": "2012-10-17", "Statement": [everything]})])
    (place / "operator.json").write_text(json.dumps(operator, default=str))
    guard = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST")
    urllib.request.urlopen(guard).read()


def keys(endpoint: str, place: pathlib.Path):
    return client("iam", endpoint, json.loads((place / "operator.json").read_text()))


def rotate(endpoint: str, place: pathlib.Path) -> None:
    iam = keys(endpoint, place)
    for key in iam.list_access_keys(UserName=VAULT)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=VAULT, AccessKeyId=key["AccessKeyId"])


def renew(endpoint: str, place: pathlib.Path) -> None:
    write(place, keys(endpoint, place).create_access_key(UserName=VAULT)["AccessKey"])


def serve(port: str) -> None:
    from moto.iam import access_control
    from moto.server import main

    access_control.IAMRequestBase.check_signature = lambda _: None
    main(["-H", "127.0.0.1", "-p", port])


if __name__ == "__main__" and sys.argv[1] == "serve":
    serve(sys.argv[2])
elif __name__ == "__main__":
    {"prepare": prepare, "rotate": rotate, "renew": renew}[sys.argv[1]](sys.argv[2], pathlib.Path(sys.argv[3]))
