"""The KMS as AWS's clients speak to it: AWS JSON 1.1 over HTTP. Translates between that and the engine, and decides
nothing.
"""
