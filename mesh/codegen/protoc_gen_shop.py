"""The protoc plugin of the house: checks what the protos promise, then derives the tables, classes and docs.

Its one parameter is `python` (the default: modules below shop/) or `docs` (Markdown files).
"""

import sys

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

from mesh.codegen import checks, render_client, render_docs, render_python
from mesh.codegen.schema import Schema


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """The generated files, or every problem that forbids them."""
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    schema = Schema(request)
    problems = checks.problems(schema)
    if problems:
        response.error = "\n".join(problems)
        return response
    if request.parameter == "docs":
        rendered = render_docs.render(schema)
    else:
        rendered = {**render_python.render(schema), **render_client.render(schema)}
    for name, content in sorted(rendered.items()):
        response.file.add(name=name, content=content)
    return response


def main() -> None:
    """Speaks the plugin protocol on stdin and stdout."""
    response = respond(CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
