SELECT a.y, COUNT(*) FROM a, b, b c WHERE a.x = b.x AND b.y = c.y AND c.x > 3 GROUP BY a.y
