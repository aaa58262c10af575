"""Pure functions from arguments to Kubernetes manifests, and the checks of those arguments.

A manifest is a dict in camelCase, complete with `apiVersion` and `kind`. Nothing here imports pulumi: a value that the
caller passes as a Pulumi output is placed, never looked at. Every module has `problems(args, path)`, which yields every
reason why the arguments cannot be rendered; the builders assume that there is none.
"""
