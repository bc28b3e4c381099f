-- SELECT Modality, count(*) FROM series GROUP BY ALL ORDER BY 2 DESC
SELECT Modality, count(*) FROM series GROUP BY Modality ORDER BY 2 DESC
