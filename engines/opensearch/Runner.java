import java.lang.reflect.Method;
import java.lang.reflect.Proxy;

/**
 * One node of OpenSearch or Elasticsearch 7 with an HTTP server, over the codelibs runner. By reflection, so that one
 * class serves both: java -cp CLASSES:JARS/* Runner os|es HOME PORT
 */
public class Runner {
    private static Object call(Object target, String name, Class<?>[] types, Object... values) throws Exception {
        Method method = target.getClass().getMethod(name, types);
        method.setAccessible(true);
        return method.invoke(target, values);
    }

    public static void main(String[] arguments) throws Exception {
        boolean opensearch = arguments[0].equals("os");
        String home = arguments[1];
        int port = Integer.parseInt(arguments[2]);
        Class<?> runnerClass = Class.forName(
                opensearch
                        ? "org.codelibs.opensearch.runner.OpenSearchRunner"
                        : "org.codelibs.elasticsearch.runner.ElasticsearchClusterRunner");
        Class<?> builderClass = Class.forName(runnerClass.getName() + "$Builder");
        Class<?> configsClass = Class.forName(runnerClass.getName() + "$Configs");
        Object runner = runnerClass.getConstructor().newInstance();
        String[][] settings = {
            {"network.host", "127.0.0.1"},
            {"http.port", String.valueOf(port)},
            {"transport.port", String.valueOf(port + 1)},
            {"discovery.type", "single-node"},
            {"action.destructive_requires_name", "false"},
            {"cluster.max_shards_per_node", "20000"},
            {"cluster.routing.allocation.disk.threshold_enabled", "false"},
        };
        Object builder = Proxy.newProxyInstance(
                runnerClass.getClassLoader(), new Class<?>[] {builderClass}, (proxy, method, values) -> {
                    if (method.getName().equals("build")) {
                        Class<?>[] texts = {String.class, String.class};
                        for (String[] setting : settings) {
                            call(values[1], "put", texts, setting[0], setting[1]);
                        }
                    }
                    return null;
                });
        runnerClass.getMethod("onBuild", builderClass).invoke(runner, builder);
        Object configs = runnerClass.getMethod("newConfigs").invoke(null);
        call(configs, "basePath", new Class<?>[] {String.class}, home);
        call(configs, "clusterName", new Class<?>[] {String.class}, "unisono-engines");
        call(configs, "numOfNode", new Class<?>[] {int.class}, 1);
        call(configs, "useLogger", new Class<?>[0]);
        runnerClass.getMethod("build", configsClass).invoke(runner, configs);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                runnerClass.getMethod("close").invoke(runner);
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        Thread.currentThread().join();
    }
}
