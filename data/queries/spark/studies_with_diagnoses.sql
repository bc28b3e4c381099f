-- one row per study whose patient has clinical records: what was imaged, and the diagnoses
SELECT
    PatientID,
    StudyDate,
    ModalitiesInStudy AS modalities,
    series_count AS series,
    instance_count AS instances,
    transform(
        array_sort(collect_list(struct(record, get_json_object(record_values, '$.diagnosis') AS diagnosis))),
        one -> one.diagnosis
    ) AS diagnoses
FROM study_clinical
WHERE record_type = 'table'
GROUP BY study_key, PatientID, StudyDate, ModalitiesInStudy, series_count, instance_count
ORDER BY PatientID NULLS LAST, StudyDate NULLS LAST
