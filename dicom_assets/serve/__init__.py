"""The lake answering over HTTP: DICOMweb in place, over the tables and the objects where they lie.

From the top: `server` listens; `app` puts it together; around every answer stand, from the outside, `observation`
(logs, numbers), `answer_headers`, `exceptions` (where they end), `patience` (time), `gate` (`limits`, `access`) and
`compression`; `routing` makes routes of the one list of what is answered, `routes`, made of `resource`; `searching`,
`metadata`, `frames`, `rendering`, `bulk`, `objects` and `storing` answer; `call` is what an answer is made from,
`problems` what a client gets instead; `served` is the lake as requests see it.
"""
