SELECT * FROM a LEFT JOIN b ON a.x = b.x AND b.y <> 'w1' FULL JOIN a d ON d.y = b.y ORDER BY 1 LIMIT 5
