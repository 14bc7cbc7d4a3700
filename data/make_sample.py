#!/usr/bin/env python3
"""Cuts the sample of this folder from the full data set.

Usage: make_sample.py SOURCE_FOLDER

SOURCE_FOLDER holds the full `products.jsonl.gz` and `orders.jsonl.gz`. Orders are taken evenly over the year among
those of two or more lines that are all for one of the most sold products, which are the sample's catalogue.
"""

import collections
import gzip
import json
import pathlib
import sys

ORDERS = 2000
PRODUCTS = 2000
LINES_MIN = 2


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write(path, records):
    # No name and no time in the header, so that the same data always gives the same bytes.
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        for record in records:
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            out.write(line.encode("utf-8") + b"\n")


def main():
    source = pathlib.Path(sys.argv[1])
    target = pathlib.Path(__file__).parent
    catalogue = {p["id"]: p for p in read(source / "products.jsonl.gz")}

    sold = collections.Counter()
    orders = []
    for order in read(source / "orders.jsonl.gz"):
        ids = [line["product_id"] for line in order["items"]]
        sold.update(ids)
        if len(ids) >= LINES_MIN:
            orders.append(order)

    known = [p for p, _ in sold.most_common() if p in catalogue][:PRODUCTS]
    assortment = set(known)
    orders = [o for o in orders if all(i["product_id"] in assortment for i in o["items"])]
    step = len(orders) / ORDERS
    chosen = [orders[int(n * step)] for n in range(ORDERS)]

    write(target / "products.jsonl.gz", (catalogue[p] for p in sorted(assortment, key=int)))
    write(target / "orders.jsonl.gz", chosen)
    lines = sum(len(o["items"]) for o in chosen)
    print(f"{len(assortment)} products, {len(chosen)} of {len(orders)} orders, {lines} lines")


if __name__ == "__main__":
    main()
