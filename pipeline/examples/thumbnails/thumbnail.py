"""Makes a thumbnail, as a Lambda handler (of an object in S3) and as a container's program (of a file)."""

import io
import json
import os
import sys

import boto3
from PIL import Image

SIDE_MAX_PX = 256

s3 = boto3.client("s3", region_name=os.environ.get("AWS_REGION", "us-east-1"))
bucket = os.environ["BUCKET"]


def shrink(source, lane, key):
    """Puts the thumbnail of a picture beside it, and says what it did."""
    with Image.open(source) as picture:
        size = picture.size
        # Lets the decoder of JPEGs skip what nobody will see: a picture of 24 megapixels needs a tenth of its memory.
        picture.draft("RGB", (SIDE_MAX_PX, SIDE_MAX_PX))
        small = picture.convert("RGB")
    small.thumbnail((SIDE_MAX_PX, SIDE_MAX_PX))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    name = "thumbnails/" + os.path.splitext(os.path.basename(key))[0] + ".jpg"
    s3.put_object(Bucket=bucket, Key=name, Body=out.getvalue(), ContentType="image/jpeg")
    return {"thumbnail": name, "from": list(size), "to": list(small.size), "bytes": out.tell(), "by": lane}


def handler(event, context):
    found = s3.get_object(Bucket=bucket, Key=event["key"])
    return shrink(io.BytesIO(found["Body"].read()), "function", event["key"])


if __name__ == "__main__":
    item = json.load(sys.stdin)
    try:
        print(json.dumps(shrink(sys.argv[1], "container", item["key"])))
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "cause": str(error)}), file=sys.stderr)
        sys.exit(1)
