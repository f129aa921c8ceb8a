"""Counts the answers of each life of the flaky node; prints its restarts."""

from dora import Node

answers: dict[int, int] = {}
for event in Node():
    match event["type"]:
        case "INPUT":
            life = event["value"][0].as_py()
            answers[life] = answers.get(life, 0) + 1
        case "NODE_RESTARTED":
            print(f"{event['id']} was restarted")
for life, count in sorted(answers.items()):
    print(f"life {life}: {count} answers")
