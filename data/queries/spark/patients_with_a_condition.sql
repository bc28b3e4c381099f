-- patients who had a CT and have this diagnosis, from FHIR Conditions that arrived
SELECT DISTINCT PatientID, code_display FROM study_condition
WHERE array_contains(ModalitiesInStudy, 'CT') AND code = '91302008'
