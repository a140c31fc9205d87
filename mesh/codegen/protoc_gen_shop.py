"""Our protoc plugin: checks the protos, then derives tables, classes and docs from them.

Its one parameter is `python` (the default: modules below shop/) or `docs` (Markdown files).
"""

import sys

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

from mesh.codegen import checks, render_client, render_docs, render_python
from mesh.codegen.schema import Schema


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Return the generated files, or an error that lists every problem."""
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
    """Run the plugin protocol on stdin and stdout."""
    response = respond(CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
