import java.io.FileInputStream;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.List;

import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.exception.MongoServerError;
import de.bwaldvogel.mongo.exception.MongoSilentServerException;
import io.netty.channel.Channel;

/**
 * A server of MongoDB's wire protocol for tests: mongo-java-server over a file, with TLS.
 *
 * Arguments: folder of the data, folder of the certificates, port of a standalone server, port of one that says that
 * it is a replica set. The second takes the commands of a transaction, but undoes nothing when one is aborted.
 */
public final class MongoWire {
    public static void main(String[] arguments) throws Exception {
        Path data = Path.of(arguments[0]);
        Path certificates = Path.of(arguments[1]);
        MongoServer standalone = serve(new Backend(data.resolve("standalone.h2"), null), certificates, arguments[2]);
        String address = "127.0.0.1:" + arguments[3];
        MongoServer replicaSet = serve(new Backend(data.resolve("replica-set.h2"), address), certificates, arguments[3]);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            standalone.shutdown();
            replicaSet.shutdown();
        }));
        Thread.currentThread().join();
    }

    private static MongoServer serve(Backend backend, Path certificates, String port) throws Exception {
        MongoServer server = new MongoServer(backend);
        server.enableSsl(key(certificates.resolve("server.key")), null, certificate(certificates.resolve("server.crt")));
        server.bind("127.0.0.1", Integer.parseInt(port));
        return server;
    }

    private static PrivateKey key(Path pem) throws Exception {
        String text = Files.readString(pem).replaceAll("-----[A-Z ]+-----|\\s", "");
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(text)));
    }

    private static X509Certificate certificate(Path pem) throws Exception {
        try (InputStream in = new FileInputStream(pem.toFile())) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    /** Says that it is MongoDB 5.0: current drivers refuse what the server says by itself. */
    private static final class Backend extends H2Backend {
        private final String replicaSetMember;

        Backend(Path file, String replicaSetMember) {
            super(file.toString());
            this.replicaSetMember = replicaSetMember;
            version(new MongoVersion() {
                @Override
                public List<Integer> getVersionArray() {
                    return List.of(5, 0, 0);
                }

                @Override
                public int getWireVersion() {
                    return 13;
                }
            });
        }

        @Override
        public Document handleCommand(Channel channel, String database, String command, Document query) {
            boolean greets = command.equalsIgnoreCase("hello") || command.equalsIgnoreCase("isMaster");
            if (greets) {
                Document answer = super.handleCommand(channel, database, "isMaster", query);
                answer.append("isWritablePrimary", true).append("helloOk", true);
                if (replicaSetMember != null) {
                    answer.append("setName", "rs").append("me", replicaSetMember).append("primary", replicaSetMember)
                        .append("hosts", List.of(replicaSetMember)).append("logicalSessionTimeoutMinutes", 30);
                }
                return answer;
            }
            if (replicaSetMember != null && List.of("commitTransaction", "abortTransaction").contains(command)) {
                return new Document("ok", 1.0);
            }
            try {
                return super.handleCommand(channel, database, command, query);
            } catch (MongoSilentServerException e) {
                // Told without its code, which drivers expect.
                throw "ns not found".equals(e.getMessage())
                    ? new MongoServerError(26, "NamespaceNotFound", e.getMessage()) : e;
            }
        }
    }
}
