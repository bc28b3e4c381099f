-- one row per study whose patient has clinical records: what was imaged, and the diagnoses
SELECT
    PatientID,
    StudyDate,
    ModalitiesInStudy AS modalities,
    series_count AS series,
    instance_count AS instances,
    list(record_values ->> 'diagnosis' ORDER BY record) AS diagnoses
FROM study_clinical
WHERE record_type = 'table'
GROUP BY study_key, PatientID, StudyDate, modalities, series, instances
ORDER BY PatientID, StudyDate
