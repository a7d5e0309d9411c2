"""How the JVMs of tests run: short, on small data, several of them on few cores."""

SERVER_OPTIONS = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
# A third of a session's work was the second compiler's, for code that ran too seldom to repay it; without it the cache
# for compiled code would be too small. Ports, pages and colours are of no use here.
OPTIONS = " ".join([*SERVER_OPTIONS, "-XX:ReservedCodeCacheSize=240m", "-Dspark.ui.enabled=false"])
# For the few rows of a test, to write, compile and load code for a plan takes longer than to interpret the plan: a
# fifth of a session's work, half of it in the tasks of Delta's own jobs. What spark-submit starts, the whole year, the
# equivalence of runs and the tests of the Avro decoder run generated code, as users do (see `generated_code`).
CODE = "spark.sql.codegen.factoryMode"
GENERATED, INTERPRETED = "FALLBACK", "NO_CODEGEN"
INTERPRETING_OPTIONS = f"{OPTIONS} -D{CODE}={INTERPRETED}"
