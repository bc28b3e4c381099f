-- series whose texts name their own patient
SELECT SeriesInstanceUID, score, own_text FROM phi_risk WHERE size(own_text) > 0
