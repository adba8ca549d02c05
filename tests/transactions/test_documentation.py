"""The examples of docs/transactions.md do what is printed below them."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg

PAGE = (Path(__file__).parents[2] / "docs" / "transactions.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
TABLES = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_examples(postgres_server: str, tmp_path: Path) -> None:
    assert (len(EXAMPLES), len(TABLES)) == (3, 1)
    name = f"docs_{tmp_path.name[-12:]}".lower().replace("-", "_")
    url = re.sub(r"/[^/?]*(\?|$)", rf"/{name}\1", postgres_server, count=0)
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with psycopg.connect(url) as connection:
                connection.execute(TABLES[0])
            for program, printed in EXAMPLES:
                ran = subprocess.run(
                    [sys.executable, "-W", "error", "-c", program],
                    cwd=tmp_path,
                    env={"DATABASE_URL": url},
                    capture_output=True,
                    check=False,
                    timeout=60,
                    text=True,
                )
                assert (ran.returncode, ran.stdout) == (0, printed), ran.stderr
                # What a program without logging of its own is told: the attempts that the example lets fail.
                assert all(line.startswith("step 'debit' of run ") for line in ran.stderr.splitlines())
        finally:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
