"""Runs in the engines' environment: statements and queries in Spark SQL, by pysail.

stdin: {"statements": [...], "queries": {name: sql}}; stdout: {name: answer of `arrow_rows.plain`, or {"error": text}}.
"""

from __future__ import annotations

import json
import os
import sys
import warnings

warnings.simplefilter("ignore")

from arrow_rows import plain  # noqa: E402
from pysail.spark import SparkConnectServer  # noqa: E402
from pyspark.errors import PySparkException  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402


def main() -> None:
    """See above."""
    asked = json.load(sys.stdin)
    server = SparkConnectServer()
    server.start()
    spark = SparkSession.builder.remote(f"sc://127.0.0.1:{server.listening_address[1]}").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    for statement in asked["statements"]:
        spark.sql(statement).collect()
    answers = {}
    for name, query in asked["queries"].items():
        try:
            answers[name] = plain(spark.sql(query).toArrow())
        except PySparkException as error:
            answers[name] = {"error": str(error)}
    print(json.dumps(answers), flush=True)
    os._exit(0)  # the server's threads outlive `stop`


main()
