-- any attribute, from the complete header: (0018,9073) Acquisition Duration
SELECT uri, get_json_object(header, '$.00189073.Value[0]') AS seconds FROM flat_metadata
WHERE get_json_object(header, '$.00189073') IS NOT NULL
