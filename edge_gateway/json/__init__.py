"""ProtoJSON, strictly read and written, and the forms that streams of JSON have on HTTP."""
