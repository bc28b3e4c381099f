"""The lake answering over HTTP: DICOMweb in place, over the tables and the objects where they lie.

From the top: `app` puts it together; `routes` is the one list of what is answered, made of `resource`; `searching`,
`metadata`, `frames`, `rendering`, `bulk`, `objects` and `storing` answer; `call` is what an answer is made from,
`problems` what a client gets instead; `served` is the lake as requests see it.
"""
