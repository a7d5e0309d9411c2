import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/** Runs a file of SQL statements on Flink's own mini cluster, in this process: FILE [key=value of the configuration]... */
public final class FlinkSql {
    public static void main(String[] arguments) throws Exception {
        Configuration configuration = new Configuration();
        for (String setting : Arrays.copyOfRange(arguments, 1, arguments.length)) {
            int equals = setting.indexOf('=');
            configuration.setString(setting.substring(0, equals), setting.substring(equals + 1));
        }
        TableEnvironment tables = TableEnvironment.create(
            EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
        for (String statement : Files.readString(Path.of(arguments[0])).split(";")) {
            TableResult result = tables.executeSql(statement);
            if (statement.strip().startsWith("INSERT")) {
                result.await();
            }
        }
        System.exit(0); // the mini cluster's threads are no daemons
    }
}
