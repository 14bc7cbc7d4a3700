import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/** One node of Elasticsearch 8 with an HTTP server, from its jars alone: java -cp CLASSES:JARS/* Server HOME PORT */
public class Server {
    public static void main(String[] arguments) throws Exception {
        String home = arguments[0];
        int port = Integer.parseInt(arguments[1]);
        LogConfigurator.configureESLogging();
        Settings settings = Settings.builder()
                .put("path.home", home)
                .put("path.data", home + "/data")
                .put("path.logs", home + "/logs")
                .put("cluster.name", "unisono-engines")
                .put("node.name", "one")
                .put("discovery.type", "single-node")
                .put("network.host", "127.0.0.1")
                .put("http.port", port)
                .put("transport.port", port + 1)
                .put("transport.type", "netty4")
                .put("http.type", "netty4")
                .put("action.destructive_requires_name", false)
                .put("cluster.max_shards_per_node", 20000)
                .put("cluster.routing.allocation.disk.threshold_enabled", false)
                .build();
        Environment environment =
                InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), Path.of(home, "config"), () -> "one");
        PluginsLoader plugins = PluginsLoader.createPluginsLoader(
                PluginsLoader.loadModulesBundles(Path.of(home, "modules")), Set.of(), Map.of(), false);
        Node node = new Node(environment, plugins);
        node.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        Thread.currentThread().join();
    }
}
