"""Checks requests to W&B's GraphQL, one JSON body a line of standard input, against the schema SCHEMA.

    python wandb_schema.py SCHEMA

Prints what is wrong with them, a line each. Exits 77 where this Python has no `graphql-core`.
"""

import json
import pathlib
import sys

try:
    from graphql import build_schema, get_operation_ast, get_variable_values, parse, validate
except ImportError:
    sys.exit(77)

schema = build_schema(pathlib.Path(sys.argv[1]).read_text())
schema.type_map["JSONString"].parse_value = json.loads
schema.type_map["Duration"].parse_value = int

for line in sys.stdin:
    body = json.loads(line)
    name, variables = body["operationName"], body["variables"]
    document = parse(body["query"])
    errors = validate(schema, document)
    operation = get_operation_ast(document, name)
    if operation is None:
        errors = ["no operation of this name"]
    elif not errors:
        declared = operation.variable_definitions or ()
        values = get_variable_values(schema, declared, variables)
        errors = values if isinstance(values, list) else []
        # A server skips these, so nothing else would notice that they say nothing.
        errors += [f"${sent} is not declared" for sent in set(variables) - {one.variable.name.value for one in declared}]
    for error in errors:
        print(f"{name}: {str(error).splitlines()[0]}")
