"""Draws the pictures of the example and uploads them, or fetches their thumbnails onto one sheet.

    python3 pictures.py upload | fetch DIRECTORY
"""

import colorsys
import io
import math
import os
import random
import sys

import boto3
from PIL import Image, ImageDraw, ImageFilter

SMALL, LARGE = 40, 4
bucket = os.environ.get("BUCKET", "photos")
s3 = boto3.client("s3", region_name=os.environ.get("AWS_REGION", "us-east-1"))


def colour(hue, light, strength=0.6):
    return tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue % 1, light, strength))


def landscape(seed, width, height):
    """Hills under a sun, another for each seed."""
    chance = random.Random(seed)
    hue = chance.random()
    sky = Image.linear_gradient("L").resize((width, height))
    picture = Image.composite(Image.new("RGB", (width, height), colour(hue, 0.85)),
                              Image.new("RGB", (width, height), colour(hue + 0.08, 0.45)), sky)
    draw = ImageDraw.Draw(picture)
    x, y, r = width * chance.uniform(0.2, 0.8), height * chance.uniform(0.15, 0.4), height * chance.uniform(0.06, 0.12)
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour(hue + 0.5, 0.8, 0.9))
    for layer in range(5):
        base, swing = height * (0.5 + 0.1 * layer), height * chance.uniform(0.03, 0.09)
        phase, waves = chance.uniform(0, 6.28), chance.uniform(1, 4)
        ridge = [(px, base + swing * math.sin(phase + waves * 6.28 * px / width) + swing / 3 * math.sin(phase * 3 + waves * 17 * px / width))
                 for px in range(0, width + 1, max(1, width // 200))]
        draw.polygon([(0, height), *ridge, (width, height)], fill=colour(hue + 0.05 * layer, 0.42 - 0.07 * layer))
    # What a camera adds: large pictures are megabytes for it.
    grain = Image.effect_noise((width, height), 12).convert("RGB")
    return Image.blend(picture.filter(ImageFilter.SMOOTH), grain, 0.06)


def upload():
    try:
        s3.create_bucket(Bucket=bucket)
    except s3.exceptions.BucketAlreadyOwnedByYou:
        pass
    total = 0
    for number in range(SMALL + LARGE):
        large = number >= SMALL
        size = (6000, 4000) if large else (640 + 16 * number, 480)
        out = io.BytesIO()
        kind = "PNG" if not large and number % 5 == 0 and number < 10 else "JPEG"
        landscape(number, *size).save(out, kind, quality=97 if large else 90)
        name = f"in/{'large' if large else 'small'} {number:02}.{kind.lower()}"
        s3.put_object(Bucket=bucket, Key=name, Body=out.getvalue())
        total += out.tell()
    s3.put_object(Bucket=bucket, Key="in/holiday.txt.jpg", Body=b"this is no picture")
    print(f"{SMALL + LARGE} pictures and a text that claims to be one: {total / 1e6:.1f} MB in s3://{bucket}/in/")


def fetch(directory):
    os.makedirs(directory, exist_ok=True)
    names = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix="thumbnails/").get("Contents", [])]
    columns, cell = 9, 180
    rows = -(-len(names) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * cell), "white")
    for place, name in enumerate(sorted(names)):
        body = s3.get_object(Bucket=bucket, Key=name)["Body"].read()
        with open(os.path.join(directory, os.path.basename(name)), "wb") as file:
            file.write(body)
        small = Image.open(io.BytesIO(body))
        small.thumbnail((cell - 12, cell - 12))
        x, y = place % columns * cell, place // columns * cell
        sheet.paste(small, (x + (cell - small.width) // 2, y + (cell - small.height) // 2))
    path = os.path.join(directory, "sheet.png")
    sheet.save(path)
    print(f"{len(names)} thumbnails in {directory}, all on {path}")


if __name__ == "__main__":
    if sys.argv[1] == "upload":
        upload()
    else:
        fetch(sys.argv[2])
