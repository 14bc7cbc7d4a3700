"""Compares every record of every follower with the truth, by the engines' own clients: compare.py FOLDER

FOLDER holds the unisono.toml of the run. Shares nothing with the product: it reads the truth's table, and from each
follower what its README says that other programs find there. Prints one line for each follower and exits with 1 if
a record is missing, differs, or should not be there.
"""

import json
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from urllib.parse import unquote, urlsplit

import boto3
import psycopg
import pymongo
import pymysql
import redis
import requests

FIELDS = ["id", "department", "category", "type", "brand", "manufacturer", "package_size", "price"]


def shown(value):
    """A value as text, so that engines that keep it in different types agree."""
    if value is None:
        return None
    if isinstance(value, (Decimal, float)):
        return f"{Decimal(value):.2f}"
    return str(value)


def record(get):
    return {name: shown(get(name)) for name in FIELDS}


def postgres(options):
    with psycopg.connect(options["url"], sslmode="verify-full", sslrootcert=options["tls_ca"]) as connection:
        rows = connection.execute(f'SELECT {", ".join(FIELDS)} FROM "{options["schema"]}"."product"')
        return {row[0]: record(dict(zip(FIELDS, row)).get) for row in rows}


def mysql(options):
    url = urlsplit(options["url"])
    connection = pymysql.connect(
        host=url.hostname, port=url.port, user=unquote(url.username), password=unquote(url.password),
        database=url.path.strip("/"), charset="utf8mb4", ssl={"ca": options["tls_ca"]},
    )
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT {", ".join(f"`{name}`" for name in FIELDS)} FROM product')
        text = lambda value: value.decode() if isinstance(value, bytes) else value
        rows = [[text(value) for value in row] for row in cursor.fetchall()]
        return {row[0]: record(dict(zip(FIELDS, row)).get) for row in rows}


def redis_json(options):
    # Only the administrator of engines/redis may look for keys that nobody has named.
    url = urlsplit(options["url"])
    url = url._replace(netloc=f"default:admin-secret@{url.hostname}:{url.port}").geturl()
    client = redis.Redis.from_url(url, ssl_ca_certs=options["tls_ca"], decode_responses=True)
    prefix = f'{options["prefix"]}:product:'
    found = {}
    keys = [key for key in client.scan_iter(match=f"{prefix}*", count=5000)]
    for start in range(0, len(keys), 1000):
        some = keys[start : start + 1000]
        for key, text in zip(some, client.mget(some)):
            found[key[len(prefix) :]] = record(json.loads(text).get)
    return found


def mongodb(options):
    client = pymongo.MongoClient(options["url"], tls=True, tlsCAFile=options["tls_ca"])
    documents = client[options["database"]]["product"].find({"_note": None})
    found = {}
    for document in documents:
        document["id"] = document["_id"]
        if document.get("price") is not None:
            document["price"] = document["price"].to_decimal()
        found[document["id"]] = record(document.get)
    return found


def opensearch(options):
    session = requests.Session()
    # The environment of the machine must not name other authorities.
    session.trust_env = False
    session.verify = options["tls_ca"]
    index = f'{options["url"].rstrip("/")}/{options["prefix"]}product'
    session.post(f"{index}/_refresh").raise_for_status()
    page = session.post(f"{index}/_search?scroll=2m", json={"size": 5000, "_source": ["record", "deleted"]})
    found = {}
    while True:
        page.raise_for_status()
        hits = page.json()["hits"]["hits"]
        if not hits:
            return found
        for hit in hits:
            if not hit["_source"].get("deleted"):
                found[hit["_source"]["record"]["id"]] = record(hit["_source"]["record"].get)
        scroll = {"scroll": "2m", "scroll_id": page.json()["_scroll_id"]}
        page = session.post(f'{options["url"].rstrip("/")}/_search/scroll', json=scroll)


def s3(options):
    client = boto3.client(
        "s3", endpoint_url=options["endpoint"], aws_access_key_id=options["access_key"],
        aws_secret_access_key=options["secret_key"], region_name=options.get("bucket_region", "us-east-1"),
        verify=options["tls_ca"],
    )
    url = urlsplit(options["url"])
    found = {}
    pool = ThreadPoolExecutor(max_workers=8)
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=url.netloc, Prefix=f'{url.path.strip("/")}/product/records/'
    )
    for page in pages:
        keys = [item["Key"] for item in page.get("Contents", []) if item["Key"].endswith(".json")]
        read = lambda key: json.loads(client.get_object(Bucket=url.netloc, Key=key)["Body"].read())
        for content in pool.map(read, keys):
            if not content.get("deleted"):
                found[content["record"]["id"]] = record(content["record"].get)
    return found


def main():
    with open(f"{sys.argv[1]}/unisono.toml", "rb") as file:
        sources = tomllib.load(file)["sources"]
    truth = postgres(sources["postgres"])
    print(f"{'truth':<12} {len(truth):>7} records")
    clean = True
    followers = [("redis", redis_json), ("opensearch", opensearch), ("mongodb", mongodb), ("mysql", mysql), ("s3", s3)]
    for name, read in followers:
        found = read(sources[name])
        missing = [key for key in truth if key not in found]
        surplus = [key for key in found if key not in truth]
        wrong = [key for key in truth if key in found and truth[key] != found[key]]
        print(f"{name:<12} {len(found):>7} records, {len(wrong)} wrong, {len(missing)} missing, {len(surplus)} surplus")
        for key in wrong[:3]:
            print(f"    {key}: {found[key]} instead of {truth[key]}")
        clean = clean and not (missing or surplus or wrong)
    print("every record of every follower is that of the truth" if clean else "THE FOLLOWERS DIFFER")
    sys.exit(0 if clean else 1)


main()
