-- one row per report that is linked to a study: what was imaged, what was found, and what made the link
SELECT
    study.PatientID,
    study.started_date AS imaged,
    study.modality,
    study.instance_count AS instances,
    report.code_display AS report,
    report.conclusion,
    report.linked_by
FROM diagnostic_report AS report
JOIN imaging_study AS study USING (study_key)
ORDER BY study.PatientID, imaged, report
