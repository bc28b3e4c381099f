-- one row per study whose patient has clinical records: what was imaged, and the diagnoses
SELECT
    study.PatientID,
    study.StudyDate,
    study.ModalitiesInStudy AS modalities,
    study.series_count AS series,
    study.instance_count AS instances,
    list(clinical.record_values ->> 'diagnosis' ORDER BY clinical.record) AS diagnoses
FROM study
JOIN clinical
    ON clinical.PatientID = study.PatientID
    AND coalesce(clinical.IssuerOfPatientID, '') = coalesce(study.IssuerOfPatientID, '')
GROUP BY ALL
ORDER BY study.PatientID, study.StudyDate
